"""The rank log over files: `<home>/rank_log/<model>/<replica>/<segment:08d>.jsonl`."""

from boucle.contracts.rank import RankFields, RankRecord
from boucle_adapters.segment_log import RecordKind, Segments


class RankSegments(Segments[RankFields, RankRecord]):
    """`boucle.ports.RankLog` over files."""

    kind = RecordKind(record=RankRecord, name="ranked list", identity=lambda record: record.rank_id)
