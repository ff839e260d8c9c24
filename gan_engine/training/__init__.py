"""The training of a run, from its configuration to its last checkpoint. `trainer.Trainer` is the way in.

before the first step
    run_flags     the flags of `train`: a preset, and what changes it
    beginning     prepare: everything that is read, checked and built; the first lines; the entry in run.json
    inputs        the data, and what they decide about the configuration
    memory checks advice    refusals and sentences for the person who starts the run
    transfer      weights of another run, and frozen blocks of D
the parts of a trainer
    trainer       builds the parts; step, run, samples, state_dict
    networks      G and D: layout, which weights learn, buffers
    average       G_ema
    game          the objective of the family, with D behind the augmentation
    schedule      the phases of a step, optimisers, learning rates
    batches       real images, sources, noise, and the passes of a batch
    gradients     one phase on one batch, pass by pass; graphs has the CUDA graph of all passes
    step          from the gradients of a phase to the new weights
    stops         the end of a run at a value that is not finite; nonfinite finds where the value came from
    means samples state clock    measurements, images of the grids, checkpoints, time
    precision distributed        autocast and loss scaling; several processes
while it runs
    evaluation    measurements of G_ema, the best checkpoint, the end by --patience
    run progress  the loop of steps, reports, grids and checkpoints; the bar
    chosen_ops    the backends that ran the ops of the first step
"""
