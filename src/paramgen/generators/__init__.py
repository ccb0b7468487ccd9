"""Shared by all backends: the contract, the data, the fit."""
