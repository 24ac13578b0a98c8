"""Where requests are served: engines in clusters and hosted providers, as endpoints to send to and to probe. Floor 6."""
