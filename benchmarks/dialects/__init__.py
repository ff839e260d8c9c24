"""StyleGAN2 as four code bases write it, in plain PyTorch: names, arguments and conventions are theirs."""
