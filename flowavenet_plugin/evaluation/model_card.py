"""The README of a packed model: a Hugging Face model card that says what it is and how to let it speak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

CARD = """---
{front_matter}---

# {title}

A [FloWaveNet](https://arxiv.org/abs/1811.02155) vocoder for ESPnet2: mel-spectrogram in, waveform out. Trained on {corpus}.

| {columns} |
|{lines}|
| {values} |

The features are un-normalised{log_base}: what ESPnet2's text-to-speech models generate (`denorm/feats.scp`), not `norm/feats.scp`.
{notes}
## Use

`{archive}` can be given wherever weights can, as it is or unpacked to a folder. With `flowavenet_plugin` installed beside ESPnet2:

```python
import flowavenet_plugin.espnet
from espnet2.bin.tts_inference import Text2Speech

speak = Text2Speech(train_config="exp/tts_x/config.yaml", model_file="exp/tts_x/train.loss.ave.pth", vocoder_file="{archive}")
wav = speak("Hello.")["wav"]
```

In an unmodified recipe of ESPnet2:

    ./run.sh --stage 8 --python "python3 -m flowavenet_plugin" --vocoder_file {archive}

Of features on disk:

    python3 -m flowavenet_plugin.bin.vocoder_inference --scp feats.scp --model_file {archive} --output_dir out
{results}
## Settings

<details><summary>config.yaml</summary>

```yaml
{config}```

</details>

## Cite

```bibtex
@inproceedings{{kim2019flowavenet,
  title={{{{FloWaveNet}}: A Generative Flow for Raw Audio}},
  author={{Sungwon Kim and Sang-gil Lee and Jongyoon Song and Jaehyeon Kim and Sungroh Yoon}},
  booktitle={{Proceedings of ICML}},
  year={{2019}}
}}
@inproceedings{{hayashi2020espnettts,
  title={{{{ESPnet-TTS}}: Unified, Reproducible, and Integratable Open Source End-to-End Text-to-Speech Toolkit}},
  author={{Tomoki Hayashi and Ryuichi Yamamoto and Katsuki Inoue and Takenori Yoshimura and Shinji Watanabe and Tomoki Toda and Kazuya Takeda and Yu Zhang and Xu Tan}},
  booktitle={{Proceedings of ICASSP}},
  year={{2020}}
}}
```
"""  # noqa: E501


def model_card(
    title: str,
    archive: str,
    config: Mapping[str, Any],
    parameters: int,
    corpus: str,
    language: str | None = None,
    tables: str = "",
    sample: bool = False,
    notes: str = "",
) -> str:
    """Write the card.

    Args:
        title: Name of the model.
        archive: File name of the packed model.
        config: Its training configuration.
        parameters: Number of parameters.
        corpus: Name of the corpus, for instance ``ljspeech``.
        language: Its language, as an ISO 639 code; None: not said.
        tables: Results in Markdown.
        sample: There is a ``sample.wav`` beside the card.
        notes: More to know, Markdown: data, training, limits.

    Returns:
        Markdown that starts with Hugging Face's YAML block.
    """
    front = dict(
        tags=["espnet", "audio", "text-to-speech", "vocoder", "flowavenet"], datasets=[corpus], library_name="espnet"
    )
    if language is not None:
        front["language"] = language
    conf = config["feats_extract_conf"]
    base = "e" if conf.get("log_base", 10.0) is None else f"{conf.get('log_base', 10.0):g}"
    facts = {
        "parameters": f"{parameters / 1e6:.2f} M",
        "sampling rate (Hz)": conf["fs"],
        "hop_length (samples)": conf["hop_length"],
        "mel bands": conf["n_mels"],
        "mel range (Hz)": f"{conf.get('fmin')} to {conf.get('fmax')}",
        "n_fft": conf.get("n_fft"),
    }
    heard = "\nListen to `sample.wav`; `samples.png` shows it beside the natural recording.\n" if sample else ""
    return CARD.format(
        front_matter=yaml.safe_dump(front, sort_keys=False),
        title=title,
        notes=f"\n{notes.strip()}\n" if notes else "",
        corpus=corpus,
        archive=archive,
        columns=" | ".join(facts),
        lines="|".join("---" for _ in facts),
        values=" | ".join(str(value) for value in facts.values()),
        log_base=f" mel amplitudes to the logarithm of {base}"
        if config["feats_extract"] == "fbank"
        else " (the original FloWaveNet's mel)",
        results=f"\n## Results\n\n{tables}{heard}" if tables or sample else "",
        config=yaml.safe_dump(dict(config), sort_keys=False),
    )
