"""The runs that the ordinary tests look at, and the mistakes that they must find, each with a part of its sentence."""

FAST = tuple(
    f"small {name}"
    for name in (
        *("dcgan", "dcgan in fp16", "wgan_gp", "stylegan2", "r3gan", "cgan", "sngan", "sagan", "lapgan", "pix2pix"),
        *("edges", "cyclegan", "srgan", "gan3d", "ada", "gamma auto", "diffaugment"),
    )
)
MISTAKES = {
    "small dcgan: z left on the CPU": "mixes tensors of both devices",
    "small dcgan: float(tensor) in Means.add": "makes the host wait for the GPU",
    "small dcgan: a pageable copy": "and blocks the host",
    "small dcgan: a number of the CPU in a recorded phase": "which no CUDA graph can hold in phase D",
}
