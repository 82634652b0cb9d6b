//! The control socket: `control.sock` in the data folder (0600). One JSON object a line: a request, then its answer.
