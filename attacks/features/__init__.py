"""From a recovered feature back to the picture, through a frozen backbone."""
