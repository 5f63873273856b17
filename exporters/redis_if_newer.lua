-- One block of predictions: all of it happens, or nothing. Doing it again changes nothing.
--
-- KEYS[1]    stream of blocks
-- KEYS[2]    mark of the exporter: not there means that this Redis was emptied since, or never saw it
-- KEYS[3..]  one hash for each symbol, also the name of its channel
-- ARGV[1]    "write", or "warm": write although the mark is not there, and set it; nothing goes to the stream
-- ARGV[2]    epoch that numbered the predictions
-- ARGV[3]    seconds until a hash expires, 0 for never
-- ARGV[4]    how many entries the stream keeps, roughly
-- ARGV[5]    how many records are in the block
-- ARGV[6]    how many older ones were left out before them
-- ARGV[7]    the block
-- ARGV[8]    names of the fields of a hash, with spaces between: seq and source first, the three last seldom change
-- then       for each hash: message to publish; values of the fields, with spaces between
-- Few long arguments rather than many short ones: the client spends a microsecond on each argument.
--
-- Returns how many hashes were older, or -1 for: the mark is missing, nothing was done.

local mark_ttl_s = 3600
if ARGV[1] == 'write' and redis.call('EXISTS', KEYS[2]) == 0 then
  return -1
end
local epoch, ttl_s = ARGV[2], tonumber(ARGV[3])
local names = {}
for name in string.gmatch(ARGV[8], '%S+') do
  names[#names + 1] = name
end

-- Where the tick behind a prediction stands is what orders the predictions of a symbol: an engine that lost its state
-- counts seq from 1 again. Places in different partitions do not compare.
local function is_newer(seq, source, has_seq, has_source)
  local partition, offset, index = string.match(source, '^(%d+):(%d+):(%d+)$')
  local has_partition, has_offset, has_index = string.match(has_source, '^(%d+):(%d+):(%d+)$')
  if partition ~= has_partition then
    return tonumber(seq) > tonumber(has_seq)
  end
  offset, has_offset = tonumber(offset), tonumber(has_offset)
  return offset > has_offset or (offset == has_offset and tonumber(index) > tonumber(has_index))
end

local at, written = 9, 0
for index = 3, #KEYS do
  local fields, column = {}, 0
  for value in string.gmatch(ARGV[at + 1], '%S+') do
    column = column + 1
    fields[2 * column - 1], fields[2 * column] = names[column], value
  end
  local last = #names
  local has = redis.call('HMGET', KEYS[index], 'epoch', names[1], names[2], names[last - 2], names[last - 1], names[last])
  local is_known = has[1] == epoch and has[2] and has[3]
  if not is_known or is_newer(fields[2], fields[4], has[2], has[3]) then
    local total = #fields
    if is_known and has[4] == fields[total - 4] and has[5] == fields[total - 2] and has[6] == fields[total] then
      redis.call('HSET', KEYS[index], unpack(fields, 1, total - 6))
    else
      redis.call('HSET', KEYS[index], 'epoch', epoch, unpack(fields))
    end
    if ttl_s > 0 then
      redis.call('EXPIRE', KEYS[index], ttl_s)
    end
    redis.call('PUBLISH', KEYS[index], ARGV[at])
    written = written + 1
  end
  at = at + 2
end

-- A block that brought nothing newer is there already: this is a repetition.
if written > 0 and ARGV[1] == 'write' then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'epoch', epoch,
    'count', ARGV[5], 'skipped', ARGV[6], 'block', ARGV[7])
end
redis.call('SET', KEYS[2], epoch, 'EX', mark_ttl_s)
return written
