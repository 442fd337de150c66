#!lua name=tollgate_1
-- The rule of the store: at most `quota` starts of a limiter in any trailing second, exactly (P1).
--
-- Owns the windows and the epoch of a bucket. Must never forget a start that can still fall into a
-- second that ends at a later start, and must never let its clock run back.
--
-- A store that replicas of two versions use: the newer one takes over, the older one answers NEWER
-- and changes nothing, or the two would end each other's epochs for ever. After a way back to the
-- older version delete the keys `{b}:e`.
--
-- Gates refuse a store whose library of this name has another text. So a change of it, be it of a
-- comment, takes another version, and another name of the library and of the function.
local VERSION = 1
local SECOND = 1000000 -- all times are microseconds
local MOST_STARTS = 256 -- of one question, so that none holds up the store

-- The variables of a library live as long as the process and are neither replicated nor saved. So
-- `me` differs from the owner after a restart, a promotion, a flush and a move of the slot.
local me = nil -- this process and this load of the library
local last = 0 -- the newest instant that was said
local shift = 0 -- by how much the machine's clock was set back since: `now - shift` is what it says

-- A clock that is set back stands still, and goes on at once.
local function clock()
  local time = redis.call('TIME')
  local now = time[1] * SECOND + time[2] + shift
  if now < last then
    shift = shift + (last - now)
    now = last
  end
  last = now
  return now
end

-- `tostring` prints 14 digits, and an instant has 16.
local function text(number)
  return string.format('%.0f', number)
end

-- The epoch of the bucket and when it opens. The first caller of a process begins one.
local function epoch_at(key, now, nonce, hold)
  local found = redis.call('HMGET', key, 'owner', 'epoch', 'opens', 'version')
  if (tonumber(found[4] or 0) or 0) > VERSION then return nil end
  me = me or (nonce .. ':' .. text(now))
  if found[1] == me then return found[2], tonumber(found[3]) end
  local epoch, opens = text(now), now + hold
  -- A machine whose clock was set back must not find the windows of an epoch before.
  if epoch == found[2] then epoch = text(now + 1) end
  redis.call('HSET', key, 'owner', me, 'epoch', epoch, 'opens', text(opens), 'version', VERSION)
  return epoch, opens
end

-- The starts of up to `n` calls, as texts, and how long after `now` the next one would be when that
-- is further away than `max_delay`. `length` and `newest` are those of the window.
local function decide(key, now, quota, n, max_delay, length, newest)
  local starts = {}
  -- The window's index, from 0, of the start that the next one must be a second after.
  local first = length - quota
  local base = math.max(first, 0)
  local older = {}
  if first + n > 0 and base < length then
    older = redis.call('LRANGE', key, base, math.min(first + n, length) - 1)
  end
  while #starts < n do
    local start = math.max(now, newest)
    local index = first + #starts
    if index >= 0 then
      local bound
      if index < length then bound = older[index - base + 1]
      else bound = starts[index - length + 1] end
      start = math.max(start, tonumber(bound) + SECOND)
    end
    if start - now > max_delay then return starts, newest, start - now end
    starts[#starts + 1] = text(start)
    newest = start
  end
  return starts, newest, 0
end

-- Drops the starts that are a second older than the newest one: by age alone, never by the quota,
-- which may rise again. Gives the number of those that stay.
local function trim(key, length, newest, step)
  local function is_old(start) return tonumber(start) + SECOND <= newest end
  local old = 0
  for _, start in ipairs(redis.call('LRANGE', key, 0, step - 1)) do
    if not is_old(start) then break end
    old = old + 1
  end
  if old == step then -- rare: the first start after a busy second
    local young = length - 1
    while old < young do
      local middle = math.floor((old + young) / 2)
      if is_old(redis.call('LINDEX', key, middle)) then old = middle + 1 else young = middle end
    end
  end
  if old > 0 then redis.call('LTRIM', key, old, -1) end
  return length - old
end

-- KEYS: 1 `{b}:e`, the epoch of bucket b; 2 `{b}:w:<limiter>:<epoch>`, the window, named with the
-- epoch that the caller believes in. A window of a dead epoch is never read.
-- ARGV: 1 epoch, 2 deadline, 3 quota, 4 n, 5 max_delay (at most a second), 6 nonce, which is
-- another one at each connection of each replica, 7 hold, 8 the number of the question.
-- Reply: word, epoch, now, shift, number, wait, left, offsets of the starts from now. `wait` is the
-- rest of a hold, or how far away the first refused start was (0 = none was refused, -1 = it never
-- comes); `left` is how many more starts would fit beside the last one; `number` is that of the
-- question, by which an answer to another one is known.
redis.register_function('tollgate_admit_1', function(keys, args)
  local now, number = clock(), tonumber(args[8])
  local function say(word, epoch, wait) return {word, epoch, now, shift, number, wait, 0} end
  local epoch, opens = epoch_at(keys[1], now, args[6], tonumber(args[7]))
  if not epoch then return say('NEWER', '0', 0) end
  if now < opens then return say('HOLD', epoch, opens - now) end
  if args[1] ~= epoch then return say('EPOCH', epoch, 0) end
  if now > tonumber(args[2]) then return say('LATE', epoch, 0) end

  local key, quota = keys[2], tonumber(args[3])
  local n = math.min(tonumber(args[4]), MOST_STARTS)
  if n == 0 then return say('OK', epoch, 0) end
  if quota == 0 then return say('OK', epoch, -1) end
  local length = redis.call('LLEN', key)
  local newest = 0
  if length > 0 then newest = tonumber(redis.call('LINDEX', key, -1)) end

  local starts, wait
  starts, newest, wait = decide(key, now, quota, n, tonumber(args[5]), length, newest)
  local reply = say('OK', epoch, wait)
  if #starts == 0 then return reply end
  for i, start in ipairs(starts) do reply[7 + i] = tonumber(start) - now end
  redis.call('RPUSH', key, unpack(starts))
  reply[7] = math.max(0, quota - trim(key, length + #starts, newest, #starts + 3))
  -- The window must outlive its use by far, and a renewal at each call would cost a write.
  if redis.call('PTTL', key) < 2500 then redis.call('PEXPIRE', key, 5000) end
  return reply
end)
