"""Tiny transformers from a configuration, trained by Hugging Face's `Trainer`, also in two processes."""

import os

import accelerate
import torch
import transformers

import trainwatch

LENGTH, VOCABULARY = 16, 12


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


def one_of_two(rank, directory):
    """What each process does: train, and leave behind what it measured."""
    ports = {"MASTER_ADDR": "localhost", "MASTER_PORT": (directory / "port").read_text()}
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **ports})
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    callback, seen, model = watching({"flush_every": 4}), [], classifier()
    model.register_forward_hook(lambda module, args, output: seen.append(output.loss.item()))
    train(model, labelled(64), directory, [callback], ddp_backend="gloo", num_train_epochs=3,
          per_device_train_batch_size=4)  # fmt: skip
    series = callback.record.series("train_loss", "cross_entropy")
    kept = {"seen": seen, "losses": series.values.copy(), "verdict": callback.report.verdict}
    torch.save({**kept, "samples": callback.report.facts.get("run", {}).get("samples")}, directory / str(rank))
    torch.distributed.destroy_process_group()
