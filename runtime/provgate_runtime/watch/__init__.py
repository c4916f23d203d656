"""How gateway and workers are observed: metrics, liveness and readiness over HTTP, durations for statsd."""
