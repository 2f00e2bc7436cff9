"""Model card: what a tuned captioner is, on whose data it was tuned, and how well it does on what it has not seen."""

from collections.abc import Mapping
from string import Template

import yaml

from relabel.about import __version__
from relabel.digests import Json

from .tuning_recipe import TuningRecipe

CARD = Template("""---
$front---

# $name

An image captioner, tuned by relabel $version on captions that people wrote.

```yaml
- caption:
    engine: {kind: transformers, model: THIS_FOLDER}
    chat: false
    styles:
$styles```

## Held-out captions

Of $held_out samples that it was not tuned on, chosen by a hash of their keys, with greedy decoding. F1 and exact match
compare words, without articles, case and punctuation.

$scores
The weights are those of step $step, the best of $looks looks at these samples: they chose it, so figures on other data
are the better judge.

## Data

$data

## How it was tuned

$train
""")


def model_card(recipe: TuningRecipe, record: Mapping[str, Json]) -> str:
    """Markdown; the same for the same record."""
    data, best, begun = record["data"], record["best"], record["begun_with"]
    front = {"library_name": "transformers", "pipeline_tag": "image-to-text", "tags": ["relabel", "captioning"]}
    styles = "".join(
        f"      {name}: {{prompt: {quoted(style.prompt)}, max_tokens: {record['longest']}}}\n"
        for name, style in recipe.styles.items()
    )
    return CARD.substitute(
        front=yaml.safe_dump(front, sort_keys=True),
        name=recipe.name,
        version=__version__,
        styles=styles,
        held_out=data["held_out"],
        scores=table(
            ["style", "word F1", "exact", "loss, nats per token", "captions"],
            [[name, f"{each['f1']:.3f}", f"{each['exact']:.3f}", f"{each['loss']:.3f}", each["count"]]
             for name, each in best["styles"].items()],
        ),
        step=best["step"],
        looks=len(record["looks"]),
        data=rows(
            {
                "path": data["path"],
                "source digest (names and sha256 of its shards)": data["source"],
                "selection digest (which samples, which fields)": data["selection"],
                "shards": data["shards"],
                "samples tuned on": data["training"],
                "samples held out": data["held_out"],
                "held-out samples left out as copies": data["repeated"],
                "unusable samples": data["unusable"] or "none",
            }
        ),
        train=rows(
            {
                "begun with": begun["name"],
                "its weights (sha256)": begun["weights"],
                "its revision": begun["revision"] or "none",
                "weights (sha256)": record["weights"],
                **recipe.train.model_dump(mode="json", exclude={"devices"}),
                **record["numerics"],
            }
        ),
    )  # fmt: skip


def quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', width=10_000)).strip()


def rows(values: Mapping[str, Json]) -> str:
    return table(["what", "value"], [[name, value] for name, value in values.items()])


def table(names: list[str], cells: list[list[Json]]) -> str:
    lines = [names, ["---"] * len(names), *cells]
    return "".join(f"| {' | '.join(str(cell).replace('|', ' ') for cell in line)} |\n" for line in lines)
