"""Memory in pages of 2 MiB, for what allocates and frees maps of many MiB at every call."""

import os
import platform
import sys

SETTING = 'glibc.malloc.hugetlb=1'


def use_huge_pages() -> None:
  """Starts this process anew with memory in pages of 2 MiB, where Linux and glibc have them.

  Maps of many MiB are given back to the system after every call, and each page that the next one
  touches costs a fault, of which there are fewer in larger pages. glibc reads the setting before
  Python runs. A value that the user has set stays.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if platform.libc_ver()[0] == 'glibc' and 'glibc.malloc.hugetlb' not in tunables:
    os.environ['GLIBC_TUNABLES'] = ':'.join(filter(None, (tunables, SETTING)))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
