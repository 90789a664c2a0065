"""The commands of ``postbackd-client``, one a module: ``add_arguments(parser)`` and ``run(arguments) -> exit
status``."""
