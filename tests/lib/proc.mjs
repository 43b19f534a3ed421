// What /proc says about processes: who is there, what they cost, what they hold.

import fs from 'node:fs';
import path from 'node:path';

const read = (file) => {
  try {
    return fs.readFileSync(file, 'latin1');
  } catch {
    return '';
  }
};

/** All pids whose environment holds exactly `entry` ("NAME=value"). Zombies have none. */
export function pidsWith(entry) {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && read(`/proc/${pid}/environ`).split('\0').includes(entry));
}

/** Whether the process runs (a zombie does not). */
export function alive(pid) {
  const stat = read(`/proc/${pid}/stat`);
  return stat !== '' && stat.slice(stat.lastIndexOf(')') + 2)[0] !== 'Z';
}

/** The file name of the program. */
export function program(pid) {
  try {
    return path.basename(fs.readlinkSync(`/proc/${pid}/exe`));
  } catch {
    return '';
  }
}

/** A process and those it started. */
export function withChildren(pid) {
  const children = read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number);
  return [pid, ...children.flatMap(withChildren)];
}

/** How many descriptors it has. */
export function descriptors(pid) {
  return fs.readdirSync(`/proc/${pid}/fd`).length;
}

/** User and system time in clock ticks. */
export function cpuTicks(pid) {
  const stat = read(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** Context switches of all threads, voluntary and not. */
export function contextSwitches(pid) {
  let sum = 0;
  for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
    for (const [, count] of read(`/proc/${pid}/task/${task}/status`).matchAll(/ctxt_switches:\s+(\d+)/g)) sum += Number(count);
  }
  return sum;
}

/** Resident memory in KiB. */
export function residentKiB(pid) {
  return Number(/VmRSS:\s+(\d+)/.exec(read(`/proc/${pid}/status`))?.[1]);
}

/** The inodes of all sockets the process holds. */
export function socketInodes(pid) {
  const inodes = new Set();
  for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(fs.readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode) inodes.add(inode);
    } catch {
      // closed meanwhile
    }
  }
  return inodes;
}

/** How many file descriptors the process has open. */
export const openFiles = (pid) => fs.readdirSync(`/proc/${pid}/fd`).length;

/** The inodes of established TCP connections whose local port is `port`: the server's ends. */
export function establishedInodes(port) {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const inodes = new Set();
  for (const table of ['/proc/net/tcp', '/proc/net/tcp6']) {
    for (const line of read(table).split('\n').slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[1]?.endsWith(suffix) && fields[3] === '01') inodes.add(fields[9]);
    }
  }
  return inodes;
}
