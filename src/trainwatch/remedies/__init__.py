"""The catalogue of remedies: text written once, filled with the numbers of a run by the rules."""

from trainwatch.remedies.catalogue import CATALOGUE, remedy
from trainwatch.remedies.entry import RemedyEntry

__all__ = ["CATALOGUE", "RemedyEntry", "remedy"]
