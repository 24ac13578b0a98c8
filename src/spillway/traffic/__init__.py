"""The brain: pure, synchronous code that decides. `Controller.handle(event, now) -> effects`. Floor 2."""
