"""What a person would write to go on from a bundle, up to its first batch:
torchrun --nproc-per-node=2 handoff_bare.py ENDPOINT BUCKET PREFIX

It imports what a worker of kompress imports on its way to the first step, joins the group, reads the bundle, wraps the model and
makes its optimizer.
"""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import boto3
import numpy
import timm
import torch
import torch.distributed as dist
import torch.distributed.checkpoint
from safetensors.torch import load
from torch.nn.functional import interpolate
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

CREDENTIALS = Path("/var/run/kompress/credentials/output")


def main() -> None:
    endpoint, bucket, prefix = sys.argv[1:]
    dist.init_process_group("gloo")
    key, secret = ((CREDENTIALS / name).read_text() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret)
    described = json.load(s3.get_object(Bucket=bucket, Key=f"{prefix}/bundle.json")["Body"])
    weights = load(s3.get_object(Bucket=bucket, Key=f"{prefix}/model.safetensors")["Body"].read())
    architecture = described["architecture"]
    name = architecture["source"].removeprefix("timm://")
    model = timm.create_model(name, num_classes=architecture["numClasses"], **architecture["arguments"])
    model.load_state_dict(weights)
    wrapped = DistributedDataParallel(model)
    torch.optim.AdamW(wrapped.parameters(), lr=1e-3, fused=True)
    digits = importlib.metadata.distribution("scikit-learn")
    table = numpy.loadtxt(str(digits.locate_file("sklearn/datasets/data/digits.csv.gz")), delimiter=",")
    images = torch.from_numpy(table[:, :-1].reshape(-1, 1, 8, 8)).float() / 16
    images = interpolate(images, (32, 32), mode="bilinear", antialias=True).expand(-1, 3, -1, -1).contiguous()
    data = TensorDataset(images, torch.from_numpy(table[:, -1]).long())
    loader = DataLoader(data, batch_size=64 // dist.get_world_size(), sampler=DistributedSampler(data), drop_last=True)
    next(iter(loader))
    dist.barrier()
    if dist.get_rank() == 0:
        print(f"first batch at {time.time()}", flush=True)
    dist.destroy_process_group()


main()
