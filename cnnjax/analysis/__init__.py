"""What a model is and what a run did: sizes and costs of layers, plots."""

from cnnjax.analysis.summary import Row, Summary, summarize

__all__ = ["Row", "Summary", "summarize"]
