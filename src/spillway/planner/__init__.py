"""Plans capacity with the code that will run: the brain in virtual time, before simulated engines, under real traffic. Pure."""
