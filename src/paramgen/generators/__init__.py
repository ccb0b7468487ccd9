"""What all backends share: the contract, the data, the fit."""
