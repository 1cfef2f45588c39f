"""Transcripts as numbers: what was said in each clip, a character a token.

The alphabet is what stands in the transcripts of train, sorted, behind CTC's blank, which is 0 and fills up shorter rows. Texts are
lower-cased and words have one space between them: what a voice says has no capitals. A character that train never has can't be learned;
it stays in the targets as UNKNOWN, so that a word that holds it counts as an error.
"""

from collections.abc import Iterable, Sequence

import torch

BLANK, UNKNOWN = 0, -1
BLANK_LABEL = "<blank>"
SPACE = " "


def normal(text: str) -> str:
    """As it is learned and compared."""
    return SPACE.join(text.lower().split())


def alphabet_of(texts: Iterable[str]) -> list[str]:
    """Labels of the tokens."""
    return [BLANK_LABEL, *sorted({character for text in texts for character in normal(text)})]


def encode(texts: Sequence[str], alphabet: Sequence[str]) -> torch.Tensor:
    """(texts, longest), int64."""
    numbers = {character: index for index, character in enumerate(alphabet)}
    rows = [[numbers.get(character, UNKNOWN) for character in normal(text)] for text in texts]
    found = torch.full((len(rows), max(map(len, rows), default=0)), BLANK)
    for row, tokens in zip(found, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return found


def decode(tokens: Iterable[int], alphabet: Sequence[str]) -> str:
    """The text of a row; what is unknown is a �."""
    return "".join("\N{REPLACEMENT CHARACTER}" if token == UNKNOWN else alphabet[token] for token in tokens if token != BLANK)


def learnable(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that are in the alphabet, moved together, and how many each row has."""
    kept = targets > BLANK
    order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
    return targets.gather(1, order).clamp(min=BLANK), kept.sum(1)


def frames_needed(targets: torch.Tensor) -> torch.Tensor:
    """The fewest frames that CTC can write each row in: one a token, and a blank between two that are equal."""
    tokens, lengths = learnable(targets)
    return lengths + ((tokens[:, 1:] == tokens[:, :-1]) & (tokens[:, 1:] > BLANK)).sum(1)
