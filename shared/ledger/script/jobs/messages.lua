-- The message of a job, which is kept once: on its list. The record has what it takes to make it again.

-- luacheck: read globals AFTER_PARAMS BEFORE_PARAMS FORMS SHOWN (envelopes)

local SIXTY_FOUR = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'

local function digit(bits)
  local n = math.floor(bits) % 64 + 1
  return string.sub(SIXTY_FOUR, n, n)
end

local function base64(text)
  local made = {}
  for at = 1, #text, 3 do
    local a, b, c = string.byte(text, at, at + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    made[#made + 1] = digit(bits / 262144) .. digit(bits / 4096)
      .. (b and digit(bits / 64) or '=') .. (c and digit(bits) or '=')
  end
  return table.concat(made)
end

local function has_message(record) return record.message or record.envelope end

-- The message of a job, from its envelope (shared/ledger/envelopes.py) if the record does not have it.
local function message_of(record)
  if record.message then return record.message end
  local form, limits, origin, reply_to, priority =
    string.match(record.envelope, '^(%d+)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)$')
  if not FORMS[form] then error(record.id .. ': its envelope is not of a known form', 0) end
  return (string.gsub(FORMS[form], '<([%w_]+)>', {
    id = record.id, kind = record.kind, queue = record.queue,
    limits = limits, origin = origin, reply_to = reply_to, priority = priority,
    body = base64(BEFORE_PARAMS .. record.params .. AFTER_PARAMS),
    shown = (string.gsub(string.sub(record.params, 1, SHOWN), '["\\]', '\\%0')),
  }))
end
