"""What a sweep found: its runs as rows, tables, figures and a page.

    trials = groups(rows)                       a trial with all its seeds
    to_csv(rows), to_markdown(trials, title)    for a spreadsheet, for a README
    save_figures(trials, folder, title)         PNG and PDF, for a paper
    to_html(trials, title, about)               one page that opens anywhere
"""

from cnnjax.analysis.trials.figures import save_figures
from cnnjax.analysis.trials.page import to_html
from cnnjax.analysis.trials.rows import Group, Row, Spread, groups, pareto_front, spread, to_csv
from cnnjax.analysis.trials.table import to_markdown

__all__ = ["Group", "Row", "Spread", "groups", "pareto_front", "save_figures", "spread", "to_csv",
           "to_html", "to_markdown"]
