"""Is a model what the schema declares? Where its contract says something else, in words."""

from boucle.contracts.bundle import BundleContract, FeatureSpec

_MEANING = ("categories", "unit", "minimum", "maximum")
"""What a value of a feature means: the place of another name, or other units, would be another value."""


def schema_differences(contract: BundleContract, declared: BundleContract) -> list[str]:
    """Where a candidate is not what the schema promises, a clause each; how things are described does not count."""
    found = []
    if contract.entity != declared.entity:
        found.append(f"the entity is '{contract.entity}', the schema has '{declared.entity}'")
    mine = {feature.name: feature for feature in contract.features}
    theirs = {feature.name: feature for feature in declared.features}
    found += [f"feature '{name}' is not in the schema" for name in mine if name not in theirs]
    found += [f"feature '{name}' of the schema is missing" for name in theirs if name not in mine]
    for name in sorted(mine.keys() & theirs.keys()):
        found += _feature_differences(mine[name], theirs[name])
    if not found and contract.feature_names != declared.feature_names:
        found.append("the features are in another order than those of the schema")
    return found


def _feature_differences(mine: FeatureSpec, theirs: FeatureSpec) -> list[str]:
    found = []
    if (mine.dtype, mine.nullable) != (theirs.dtype, theirs.nullable):
        found.append(f"feature '{mine.name}' is {_type(mine)}, the schema has {_type(theirs)}")
    for field in _MEANING:
        here, there = getattr(mine, field), getattr(theirs, field)
        if here != there:
            found.append(f"feature '{mine.name}' has {field} {_value(here)}, the schema has {_value(there)}")
    return found


def _type(feature: FeatureSpec) -> str:
    return f"{feature.dtype} or missing" if feature.nullable else feature.dtype


def _value(value: object) -> str:
    return "none" if value in {None, "", ()} else repr(value)
