"""Characters of a text that would drive a terminal, break its line or turn its direction round.

They are for the class of a regular expression, `[…]`: what becomes of such a character is the business of whoever shows
the text.
"""

from typing import Final

ABOVE_ASCII: Final = "\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Those that JSON may hold as they are; the others it escapes itself."""
ALL_BUT_TAB_AND_NEWLINE: Final = rf"\x00-\x08\x0b-\x1f{ABOVE_ASCII}"
ALL: Final = rf"\x00-\x1f{ABOVE_ASCII}"
