"""Doubles that tests and drills stand on: clocks, chance, memory twins of ports, a scriptable upstream. Floor 6."""
