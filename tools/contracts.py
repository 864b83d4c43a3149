"""An import contract that import-linter does not have: these modules import these, and nothing else.

Its own `forbidden` needs a list of what is bad, which is never complete; a pure module is better described by the
few things it may use. Only direct imports count: what `journal.recall` imports for its types is its own business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph


class OnlyContract(Contract):
    """`source_modules` (wildcards allowed) may import `allowed_modules`, by their exact names."""

    source_modules = fields.SetField(subfield=fields.ModuleExpressionField())
    allowed_modules = fields.SetField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002, FBT001 - import-linter's own signature
        allowed: set[str] = set(_read(self.allowed_modules))
        sources = sorted(
            module
            for source in _read(self.source_modules)
            for module in graph.find_matching_modules(source.expression)
        )
        broken = [
            (module, imported, _lines(graph, module, imported))
            for module in sources
            for imported in sorted(graph.find_modules_directly_imported_by(module) - allowed)
        ]
        return ContractCheck(
            kept=bool(sources) and not broken, metadata={"broken": broken, "sources": sources}
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        if not check.metadata["sources"]:
            output.print_error("no module matches source_modules: the contract watches nothing")
        for module, imported, lines in check.metadata["broken"]:
            output.print_error(f"{module} may not import {imported} (l.{lines})")


def _read(field: Any) -> Any:
    """A contract's field as its parsed value: import-linter replaces the declaration by it at run time."""
    return field


def _lines(graph: ImportGraph, importer: str, imported: str) -> str:
    details = graph.get_import_details(importer=importer, imported=imported)
    return ", ".join(str(detail["line_number"]) for detail in details)
