"""Croissant description of a dataset's records, with the fields of responsible AI filled from the findings of its audit.

Formats: Croissant 1.1 (mlcommons.org/croissant/1.1) and its RAI extension 1.0, both JSON-LD. The description covers
``records.parquet``, which has a row per image; the image files themselves are not described, as they are where the index says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from ...findings.finding import DatasetKind, Finding

RECORDS_FILE = "records.parquet"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs",
    "isLiveDataset": "cr:isLiveDataset",
    "recordSet": "cr:recordSet",
    "field": "cr:field",
    "key": "cr:key",
    "source": "cr:source",
    "extract": "cr:extract",
    "column": "cr:column",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "containedIn": "cr:containedIn",
    "isArray": "cr:isArray",
    "arrayShape": "cr:arrayShape",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    **{
        name: f"cr:{name}"
        for name in (
            "equivalentProperty", "fileProperty", "format", "jsonPath", "md5", "parentField", "path", "references", "regex",
            "repeated", "replace", "samplingRate", "separator", "subField", "transform",
        )
    },
}  # fmt: skip
"""Names of the format (Croissant 1.1, appendix 1)."""
BIASES: tuple[DatasetKind, ...] = (
    "class_balance",
    "drift",
    "coverage",
    "predictive_property",
    "sample_order",
)
LIMITATIONS: tuple[DatasetKind, ...] = (
    "unreadable", "odd_file", "quality", "exact_duplicate", "near_duplicate", "leakage", "outlier", "domain_gap", "learning_curve", "plan_effect",
    "preprocessing",
)  # fmt: skip
ANNOTATION: tuple[DatasetKind, ...] = ("suspected_label",)


def croissant_document(
    title: str, facts: Mapping[str, Any], found: Sequence[Finding], schema: pa.Schema, sha256: str
) -> dict[str, Any]:
    """Return the description as JSON values.

    Args:
        title: of the dataset.
        facts: the content of findings.json.
        found: findings of the audit.
        schema: of ``records.parquet``.
        sha256: hexadecimal digest of ``records.parquet``.
    """
    classes = facts["classes"]
    labelled = f" in {len(classes):,} classes" if classes else ""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": title,
        "description": f"{facts['num_images']:,} images{labelled}, {facts['num_usable']:,} of which can be read. Measures, labels "
        f"and splits of each are in {RECORDS_FILE}.",
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": RECORDS_FILE,
                "name": RECORDS_FILE,
                "description": "One row per image.",
                "contentUrl": RECORDS_FILE,
                "encodingFormat": "application/x-parquet",
                "sha256": sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "key": {"@id": "images/key"},
                "field": [_field(each) for each in schema],
            }
        ],
        **rai_fields(found),
    }


def rai_fields(found: Sequence[Finding]) -> dict[str, list[str]]:
    """Return the fields of responsible AI for which there is evidence, each a list of sentences."""
    fields = {
        "rai:dataBiases": BIASES,
        "rai:dataLimitations": LIMITATIONS,
        "rai:dataAnnotationAnalysis": ANNOTATION,
    }
    sentences = {
        name: [each.sentence for each in found if each.kind in kinds] for name, kinds in fields.items()
    }
    return {name: each for name, each in sentences.items() if each}


def _field(column: pa.Field) -> dict[str, Any]:
    described = {
        "@type": "cr:Field",
        "@id": f"images/{column.name}",
        "name": column.name,
        "dataType": _data_type(column.type),
        "source": {"fileObject": {"@id": RECORDS_FILE}, "extract": {"column": column.name}},
    }
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        size = column.type.list_size if pa.types.is_fixed_size_list(column.type) else -1
        described |= {"isArray": True, "arrayShape": str(size)}
    return described


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _data_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
