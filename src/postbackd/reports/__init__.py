"""Questions and their answers: what was clicked, sent and counted, and what became of one id."""
