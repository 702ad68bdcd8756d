import html as markup

import torch
from torch import nn

import trainwatch
from reports.test_html import Page
from trainwatch.report import Report
from trainwatch.reports import html


def test_a_report_is_shown_as_its_page_in_a_frame_that_may_do_nothing(large):
    frame = Page(large._repr_html_())
    assert frame.tags == ["iframe"]
    attributes = dict(frame.attributes)
    assert attributes["srcdoc"] == html.render(large)
    assert attributes["sandbox"] is None  # no script, no access to the notebook around it
    assert attributes["title"]


def test_a_watch_shows_what_it_has_found_so_far():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = trainwatch.watch(model, optimizer, settings={"quiet": True, "strict": True, "flush_every": 5})
    assert "0 steps seen, not judged yet" in watch._repr_html_()
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.arange(8) % 2).backward()
        optimizer.step()
    assert "iframe" in watch._repr_html_()  # a look was taken
    report = watch.finish()
    assert watch._repr_html_() == report._repr_html_()


def test_a_report_without_findings_is_shown_too():
    assert "Healthy" in markup.unescape(Report("healthy")._repr_html_())
