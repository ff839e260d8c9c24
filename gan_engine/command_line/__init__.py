"""What all commands share: flags, exit statuses, messages."""
