"""Pretrained weights in and out, under the names and in the layouts that other code bases use."""
