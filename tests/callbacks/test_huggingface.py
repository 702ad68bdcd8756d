import math
import os
import pickle
import socket

import pytest
import torch
from torch import nn

import trainwatch

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

LENGTH, VOCABULARY = 16, 12
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def sequences(count, seed=0):
    """Counting upwards from a random number, now and then from another one."""
    generator = torch.Generator().manual_seed(seed)
    jumps = torch.randint(VOCABULARY, (count, LENGTH), generator=generator)
    jumps *= torch.rand(count, LENGTH, generator=generator) < 0.1
    start = torch.randint(VOCABULARY, (count, 1), generator=generator)
    return (start + torch.arange(LENGTH) + jumps.cumsum(1)) % VOCABULARY


def language_model(seed=0):
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=LENGTH,
            bos_token_id=None, eos_token_id=None, loss_type="ForCausalLM",
        )
    )  # fmt: skip


def classifier(seed=0):
    torch.manual_seed(seed)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=LENGTH, num_labels=3,
        )
    )  # fmt: skip


def texts(count, seed=0):
    return [{"input_ids": row, "labels": row} for row in sequences(count, seed)]


def labelled(count, seed=0):
    return [{"input_ids": row, "labels": int(row[0]) % 3} for row in sequences(count, seed)]


def train(model, data, tmp_path, callbacks, evaluate=None, resume=None, **arguments):
    arguments = {
        "save_strategy": "no",
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        **arguments,
    }
    arguments = transformers.TrainingArguments(
        str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
        eval_strategy="epoch" if evaluate else "no", **arguments,
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=data, eval_dataset=evaluate, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def watching(settings=(), **options):
    return trainwatch.HFTrainWatch(settings={"quiet": True, "strict": True, **dict(settings)}, **options)


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
    assert callback.report.verdict != "findings"


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


def one_of_two(rank, directory):
    """What each process does: train, and leave behind what it measured."""
    ports = {"MASTER_ADDR": "localhost", "MASTER_PORT": (directory / "port").read_text()}
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **ports})
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    callback, seen, model = watching({"flush_every": 4}), [], classifier()
    model.register_forward_hook(lambda module, args, output: seen.append(output.loss.item()))
    train(model, labelled(64), directory, [callback], ddp_backend="gloo", per_device_train_batch_size=4)
    series = callback.record.series("train_loss", "cross_entropy")
    kept = {"seen": seen, "losses": series.values.copy(), "verdict": callback.report.verdict}
    torch.save({**kept, "samples": callback.report.facts.get("run", {}).get("samples")}, directory / str(rank))
    torch.distributed.destroy_process_group()


def test_two_processes_give_one_report(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    torch.multiprocessing.start_processes(one_of_two, (tmp_path,), nprocs=2, start_method="fork")
    first, other = (torch.load(tmp_path / str(rank), weights_only=False) for rank in range(2))
    mean = torch.tensor([first["seen"], other["seen"]]).mean(0)
    torch.testing.assert_close(torch.as_tensor(first["losses"]), mean, rtol=1e-4, atol=0)
    assert first["samples"] == 2 * 64
    assert first["verdict"] != "not-judged"
    assert other["verdict"] == "not-judged"
    assert (tmp_path / "trainwatch" / "report.json").is_file()
