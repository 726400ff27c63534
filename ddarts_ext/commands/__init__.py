"""The commands of ``ddarts``, one file for each group. Heavy imports happen inside a command, so --help is quick."""
