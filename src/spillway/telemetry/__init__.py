"""What Spillway tells about itself: metrics, logs, traces. Knows no gateway: it is told plain values. Floor 1."""
