-- The writer of the result database takes what is noted in `rows` and `rows_deleted`, and removes what is written.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change count int record_key (records)

local function taken(key, limit) return redis.call('ZRANGE', key, 0, limit - 1, 'WITHSCORES') end

-- A record without what only the broker needs.
local function written_fields(id)
  local read, fields, size = redis.pcall('HGETALL', record_key(id)), {}, 0
  if read.err then return { 'id', id, 'damage', read.err }, 0 end
  for i = 1, #read, 2 do
    if read[i] ~= 'message' and read[i] ~= 'envelope' then
      fields[#fields + 1], fields[#fields + 2] = read[i], read[i + 1]
      size = size + #read[i + 1]
    end
  end
  return fields, size
end

local function want(for_ms)
  change('SET', KEY.rows_wanted, redis.call('GET', KEY.rows_wanted) or int(NOW), 'PX', for_ms)
end

-- want_rows: {wanted_ms}. Have rows noted for this long, at least. Replies 'ok'.
function T.want_rows(a)
  want(a.wanted_ms)
  return 'ok'
end

-- rows: {owner, lock_ms, wanted_ms, limit, most_bytes}. Be the writer for a while, and have rows noted for longer.
-- Replies {} if another worker is the writer, else {deleted, rows}: deleted is {id, place, ...}, and rows are
-- {id, place, fields}. A row whose record is gone is dropped.
function T.rows(a)
  want(a.wanted_ms)
  local writer = redis.call('GET', KEY.row_writer)
  if writer and writer ~= a.owner then return {} end
  change('SET', KEY.row_writer, a.owner, 'PX', a.lock_ms)
  local rows, bytes, noted = {}, 0, taken(KEY.rows, a.limit)
  for i = 1, #noted, 2 do
    local fields, size = written_fields(noted[i])
    bytes = bytes + size
    if #fields == 0 then
      change('ZREM', KEY.rows, noted[i])
      count('kept|row_dropped')
    else
      rows[#rows + 1] = { noted[i], noted[i + 1], fields }
    end
    if bytes >= a.most_bytes then break end
  end
  return { taken(KEY.rows_deleted, a.limit), rows }
end

-- Remove what has not been noted again since it was taken.
local function remove_written(key, ids, places)
  for i, id in ipairs(ids) do
    if redis.call('ZSCORE', key, id) == places[i] then change('ZREM', key, id) end
  end
end

-- rows_written: {ids, places, deleted, deleted_places, refused}. The rows of these are committed, or were refused by
-- the database for what is in them: `refused` is the number of those.
function T.rows_written(a)
  remove_written(KEY.rows, a.ids, a.places)
  remove_written(KEY.rows_deleted, a.deleted, a.deleted_places)
  if a.refused > 0 then count('kept|row_refused', a.refused) end
  return 'ok'
end
