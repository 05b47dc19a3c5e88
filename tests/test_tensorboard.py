"""What TensorBoard shows of a run, read back from its event files."""

from tensorboardX.proto.event_pb2 import Event

from jalign.log import RunLog


def events(folder):
    """Every value in the event files: TFRecords of 8 bytes length, 4 of CRC, data, 4 of CRC."""
    for file in sorted(folder.glob("events.out*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            yield from Event.FromString(data[at + 12 : at + 12 + length]).summary.value
            at += length + 16


def test_it_opens_on_what_is_learned_and_knows_config_and_texts(tmp_path):
    config = {"algorithm": {"name": "dpo", "beta": 0.2}, "seed": 3, "out": None}
    log = RunLog(tmp_path, steps=2, start=0, config=config)
    log.text(0, "generations", [{"prompt": "a|b", "continuation": "old"}])
    log.write(2, {"loss": 0.5, "rewards/margins": 0.25, "grad_norm": 2.0, "eta_s": 9.0})
    log.write(2, {"loss": 0.25, "logps/chosen": -8.0}, "eval")
    log.text(2, "generations", [{"prompt": "a|b", "continuation": "new\n<b>"}])
    log.close()
    values = list(events(tmp_path))
    scalars = {
        value.tag: value.simple_value
        for value in values
        if value.tag.count("/") and value.HasField("simple_value")
    }
    assert scalars == {
        "train/loss": 0.5, "train/rewards/margins": 0.25, "training/grad_norm": 2.0,
        "training_progress/eta_s": 9.0, "eval/loss": 0.25, "validation/logps/chosen": -8.0,
    }  # fmt: skip
    groups = sorted({name.split("/")[0] for name in scalars})
    assert groups[:2] == ["eval", "train"]  # the two that TensorBoard opens
    texts = [v.tensor.string_val[0].decode() for v in values if v.tag.startswith("generations")]
    assert "| prompt | before | after |" in texts[1]
    assert "| a&#124;b | old | new<br>&lt;b> |" in texts[1]
    assert any(v.tag == "_hparams_/session_start_info" for v in values)
    (start,) = [v for v in values if v.tag == "_hparams_/session_start_info"]
    assert b"algorithm.beta" in start.metadata.plugin_data.content
