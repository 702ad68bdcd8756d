"""Names that a user may give to classes and modules, and that must not get through as markup."""

HOSTILE = (
    "[red]x[/red]",
    "<script>alert(1)</script>",
    "a|b`c`",
    "*x* _y_ ~~z~~",
    "$x^$",
    "\x1b[31mred\nline",
    "n" * 300,
)
