"""The parts that all commands share: flags, exit statuses, messages. It knows no configuration of a run."""
