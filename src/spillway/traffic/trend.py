"""A straight line through noisy points, of which older ones count less: t = base + slope · u."""

MEMORY = 64  # points that it looks back on
BEGIN = 8  # points that a beginning counts as
STIFF = 0.25  # a spread of u below this part of its mean says little of the slope
OUTLIER = 4.0  # a point counts at most so many times, and at least a quarter of, what is expected


class Trend:
    """Least squares with exponential memory, O(1) a point. Where u hardly varies the slope can't be told from the base: then it leans
    to a line through the origin (`lean` 1: t is proportional to u) or to a constant (`lean` 0). slope ≥ 0."""

    __slots__ = ("_covariance", "_lean", "_mean_t", "_mean_u", "_points", "_variance", "base", "slope")

    def __init__(self, lean: float) -> None:
        self._lean = lean
        self._points = 0
        self._mean_u = self._mean_t = 0.0
        self._variance = self._covariance = 0.0
        self.base = self.slope = 0.0

    def begin(self, u: float, t: float) -> None:
        """Starts on this point, u > 0, as if it had been seen BEGIN times."""
        self._points = BEGIN
        self._mean_u, self._mean_t = u, t
        self.slope = self._lean * t / u
        self.base = t - self.slope * u

    def add(self, u: float, t: float) -> None:
        """Both finite, u ≥ 0, t ≥ 0. One wild point moves the line little."""
        if self._points >= BEGIN:
            expected = max(self.base + self.slope * u, self._mean_t / OUTLIER)
            t = min(OUTLIER * expected, max(expected / OUTLIER, t)) if expected > 0.0 else t
        points = self._points = min(MEMORY, self._points + 1)
        gain = 1.0 / points
        off_u, off_t = u - self._mean_u, t - self._mean_t
        self._mean_u += gain * off_u
        self._mean_t += gain * off_t
        self._variance = (1.0 - gain) * (self._variance + gain * off_u * off_u)
        self._covariance = (1.0 - gain) * (self._covariance + gain * off_u * off_t)
        self._fit()

    def _fit(self) -> None:
        mean_u = self._mean_u
        ridge = (STIFF * mean_u) ** 2
        if ridge + self._variance <= 0.0:
            self.slope, self.base = 0.0, self._mean_t
            return
        leaning = self._lean * self._mean_t / mean_u if mean_u > 0.0 else 0.0
        self.slope = max(0.0, (self._covariance + ridge * leaning) / (self._variance + ridge))
        self.base = self._mean_t - self.slope * mean_u
