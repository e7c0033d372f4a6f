"""Flower's PyTorch quickstart, made thin in two lines."""
