-- One batch of predictions: all of it happens, or nothing. Doing it again changes nothing.
--
-- KEYS[1]    stream of blocks
-- KEYS[2]    mark of the exporter: not there means that this Redis was emptied since, or never saw it
-- KEYS[3..]  one hash for each symbol, also the name of its channel
-- ARGV[1]    "write", or "warm": write although the mark is not there, and set it
-- ARGV[2]    epoch that numbered the predictions
-- ARGV[3]    seconds until a hash expires, 0 for never
-- ARGV[4]    how many entries the stream keeps, roughly
-- ARGV[5]    how many frames, then for each: count of records, block
-- then       names of the fields of a hash, with spaces between; seq, source_offset and source_index are the first
-- then       for each hash: message to publish; values of the fields, with spaces between
-- Few long arguments rather than many short ones: the client spends a microsecond on each argument.
--
-- Returns how many hashes were older, or -1 for: the mark is missing, nothing was done.

local mark_ttl_s = 3600
if ARGV[1] == 'write' and redis.call('EXISTS', KEYS[2]) == 0 then
  return -1
end
local epoch, ttl_s, maxlen, frames = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local at = 6 + 2 * frames
local names = {}
for name in string.gmatch(ARGV[at], '%S+') do
  names[#names + 1] = name
end
at = at + 1

local written = 0
for index = 3, #KEYS do
  local fields, column = {}, 0
  for value in string.gmatch(ARGV[at + 1], '%S+') do
    column = column + 1
    fields[2 * column - 1], fields[2 * column] = names[column], value
  end
  local seq, offset, place = tonumber(fields[2]), tonumber(fields[4]), tonumber(fields[6])
  local has = redis.call('HMGET', KEYS[index], 'seq', 'source_offset', 'source_index', 'epoch')
  local has_seq, has_offset, has_place = tonumber(has[1]), tonumber(has[2]), tonumber(has[3])
  -- A seq that went back belongs to an engine that lost its state if the tick behind it is newer.
  local newer = not has_seq or not has_offset or not has_place or has[4] ~= epoch or seq > has_seq
    or offset > has_offset or (offset == has_offset and place > has_place)
  if newer then
    redis.call('HSET', KEYS[index], 'epoch', epoch, unpack(fields))
    if ttl_s > 0 then
      redis.call('EXPIRE', KEYS[index], ttl_s)
    end
    redis.call('PUBLISH', KEYS[index], ARGV[at])
    written = written + 1
  end
  at = at + 2
end

-- The blocks of a batch that brought nothing newer are there already: this is a repetition.
if written > 0 then
  for frame = 0, frames - 1 do
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', maxlen, '*', 'epoch', epoch,
      'count', ARGV[6 + 2 * frame], 'block', ARGV[7 + 2 * frame])
  end
end
redis.call('SET', KEYS[2], epoch, 'EX', mark_ttl_s)
return written
