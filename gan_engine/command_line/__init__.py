"""The parts that all commands share: flags, exit statuses, messages."""
