"""A fuzz target with a fault planted in it, which `test_fuzz` wants to be found."""

import sys

import atheris


@atheris.instrument_func  # pyright: ignore[reportAttributeAccessIssue, reportUntypedFunctionDecorator]
def one_input(noise: bytes) -> None:
    if len(noise) > 2 and noise[0] == ord("k"):
        raise ValueError("planted")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
