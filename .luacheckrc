-- The parts are one library of functions: Lua 5.1 with the server's globals, and nothing made global.
std = "lua51"
read_globals = { "redis", "cjson" }
globals = { "T" } -- the transitions, by name; every part may add some
max_line_length = 120

-- A part defines what later parts use; that all of it is used shows in the whole, which is checked, too.
files["shared/ledger/script/*/*.lua"].ignore = { "211", "221", "231" }
