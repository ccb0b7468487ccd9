"""What a network on disk is: parameters, zoos, samples, codecs."""
