"""The operators under the names of other libraries, with their argument order, padding and defaults.

    stylegan      torch_utils.ops of the StyleGAN2-ADA and StyleGAN3 repositories
    rosinality    op of rosinality's stylegan2-pytorch
    basicsr       basicsr.ops
    mmcv          mmcv.ops

Change an import, or leave it and call gan_engine.patch.patch. Only names and conventions are theirs; the code is ours.
"""
