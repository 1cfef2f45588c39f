"""What pruning removes. The granularity's name is the module, with

RANKS                                                       functions of an importance of which it needs one
Pruner(model, sample, importance, spec, head, field)        see `pruning.structural.Structural` and `pruning.masks.Masked`
replay(model, change, sample) -> model                      does again, to a freshly built model, what a bundle's history says
"""
