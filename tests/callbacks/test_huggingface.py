import math
import os
import pickle
import socket

import pytest
import torch
from torch import nn

import trainwatch

os.environ["HF_HUB_OFFLINE"] = "1"  # inherited by the processes that a test starts
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

from transformed import (  # noqa: E402
    VOCABULARY,
    classifier,
    labelled,
    language_model,
    one_of_two,
    texts,
    train,
    watching,
)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_language_model_is_recorded_as_its_mean_loss_whatever_the_trainer_divides(tmp_path, accumulation):
    callback, model = watching(), language_model()
    train(model, texts(64), tmp_path, [callback], texts(24, 1), gradient_accumulation_steps=accumulation)
    record = callback.record
    assert record.keys("train_loss") == ["cross_entropy", "root"]
    assert record.steps == 16 // accumulation
    losses = record.series("train_loss", "cross_entropy").values
    assert losses[0] == pytest.approx(math.log(VOCABULARY), abs=0.3)
    assert record.facts["task"] == "language-model"
    factor = record.latest("loss_factor", "cross_entropy")[1]
    assert float(factor) == pytest.approx(1 / accumulation, rel=0.1)
    model.eval()
    rows = torch.stack([one["input_ids"] for one in texts(24, 1)])
    with torch.no_grad():
        logits = model(input_ids=rows).logits
        expected = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY), rows[:, 1:].reshape(-1))
    assert float(record.latest("val_loss", "val")[1]) == pytest.approx(float(expected), rel=1e-3)
    assert record.has("metric")
    assert len(record.series("epoch", "end")) == 2
    assert {d.code for d in callback.report.findings()} <= {"TW205"}  # of a few steps more would help


def test_predictions_of_a_classifier_are_seen_and_its_loss_can_be_computed_again(tmp_path):
    callback = trainwatch.HFTrainWatch(
        settings={"quiet": True, "strict": True, "probes": {"train_eval": 1, "activations": 1}}
    )
    train(classifier(), labelled(96), tmp_path, [callback], labelled(48, 1))
    record = callback.record
    assert record.facts["task"] == "multiclass"
    assert record.latest("val_confusion", "val")[1].sum() == 48
    assert record.latest("train_classes", "targets")[1].sum() > 0
    loss = record.latest("evaluated_loss", "held")[1]  # a probe ran held batches again
    assert loss[3] == pytest.approx(float(record.latest("val_loss", "val")[1]), rel=0.3)
    assert (tmp_path / "trainwatch" / "report.html").is_file()
    assert pickle.loads(pickle.dumps(callback)).record is None


def test_a_loss_that_the_trainers_log_hides_is_found(tmp_path):
    model, callback = classifier(), watching()
    wait = iter(range(100))

    def poison(module, args, output):
        return output + float("nan") if next(wait) == 9 else output

    model.classifier.register_forward_hook(poison)
    trainer = train(model, labelled(96), tmp_path, [callback], logging_steps=4, logging_nan_inf_filter=True)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(float(loss)) for loss in logged[:2])
    assert "TW303" in {d.code for d in callback.report.findings("error")}


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def test_training_is_untouched(tmp_path):
    runs = []
    for callbacks in (
        [],
        [
            trainwatch.HFTrainWatch(
                settings={"quiet": True, "strict": True, "probes": {"train_eval": 1, "activations": 1}}
            )
        ],
    ):
        model = classifier()
        train(model, labelled(64), tmp_path, callbacks, labelled(24, 1))
        runs.append((weights(model), torch.rand(2)))
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))
    assert torch.equal(runs[0][1], runs[1][1])


def test_stop_on_ends_the_training(tmp_path):
    callback = watching({"flush_every": 20, "overhead": 0.9}, stop_on=("TW601",))
    trainer = train(classifier(), labelled(96), tmp_path, [callback], learning_rate=30.0, num_train_epochs=20)
    assert trainer.state.global_step < 20 * 12
    assert "TW601" in {d.code for d in callback.report.findings()}


def test_an_exception_leaves_a_report_to_be_asked_for(tmp_path):
    model, callback = classifier(), watching()
    wait = iter(range(100))

    def fail(module, args, output):
        if next(wait) == 5:
            raise RuntimeError("planted")

    model.classifier.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        train(model, labelled(96), tmp_path, [callback])
    assert callback.report is None
    assert callback.finish() is callback.report
    assert callback.record.steps == 5


def test_a_plain_loop_with_accelerate():
    model, data = classifier(), labelled(48)
    batches = [
        {k: torch.stack([torch.as_tensor(d[k]) for d in data[i : i + 8]]) for k in data[0]} for i in range(0, 48, 8)
    ]
    prepared = accelerate.Accelerator(cpu=True)
    net, optimizer = prepared.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    watch = trainwatch.watch(net, optimizer, settings={"quiet": True, "strict": True})
    for batch in batches * 3:
        optimizer.zero_grad()
        prepared.backward(net(**batch).loss)
        optimizer.step()
    watch.finish()
    assert watch.record.steps == 18
    assert watch.record.facts["optimizers"]["default"]["type"] == "AdamW"
    assert len(watch.record.series("train_loss", "cross_entropy")) == 18


def test_a_wrong_argument_is_named_when_the_callback_is_made():
    with pytest.raises(TypeError, match="stop_on"):
        trainwatch.HFTrainWatch(stop_on="TW201")


def test_a_training_that_goes_on_from_a_checkpoint_has_one_record(tmp_path):
    whole = watching()
    train(classifier(), labelled(64), tmp_path / "whole", [whole])
    options = {"save_strategy": "steps", "save_steps": 5}
    first = watching()
    train(classifier(), labelled(64), tmp_path / "run", [first], max_steps=5, **options)
    callback = watching()
    train(
        classifier(seed=1), labelled(64), tmp_path / "run", [callback], resume=str(tmp_path / "run" / "checkpoint-5"),
        **options,
    )  # fmt: skip
    assert callback.record.steps == 16
    ours, theirs = (c.record.series("train_loss", "cross_entropy") for c in (callback, whole))
    assert ours.steps.tolist() == theirs.steps.tolist() == list(range(16))
    assert ours.values[:5].tolist() == first.record.series("train_loss", "cross_entropy").values.tolist()
    assert callback.report.facts["run"]["samples"] == 2 * 64


@pytest.mark.long
def test_two_processes_give_one_report(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    torch.multiprocessing.start_processes(one_of_two, (tmp_path,), nprocs=2, start_method="spawn")
    first, other = (torch.load(tmp_path / str(rank), weights_only=False) for rank in range(2))
    mean = torch.tensor([first["seen"], other["seen"]]).mean(0)
    torch.testing.assert_close(torch.as_tensor(first["losses"]), mean, rtol=1e-4, atol=0)
    assert first["samples"] == 3 * 64
    assert first["verdict"] != "not-judged"
    assert other["verdict"] == "not-judged"
    assert (tmp_path / "trainwatch" / "report.json").is_file()
