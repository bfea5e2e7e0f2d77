# ruff: noqa: E501  The lines are as long as the tools write them.
"""Profiles in the layouts that nvprof and Nsight Compute write, and broken ones."""

import pytest

from cnnopt_jax.traffic import profiles

NVPROF_SUMMARY = """==123== NVPROF is profiling process 123, command: ./net
==123== Profiling application: ./net
==123== Profiling result:
==123== Metric result:
"Device","Kernel","Invocations","Metric Name","Metric Description","Min","Max","Avg"
"GeForce GTX 1080 Ti (0)","void conv<float, int=3>(float*)",3,"l2_read_transactions","L2 Read",10,30,20.000000
"GeForce GTX 1080 Ti (0)","void conv<float, int=3>(float*)",3,"dram_write_transactions","W",1,1,1.5
"GeForce GTX 1080 Ti (0)","void conv<float, int=3>(float*)",3,"achieved_occupancy","O",0.1,0.2,0.15
"GeForce GTX 1080 Ti (0)","relu(float*)",2,"l2_read_transactions","L2 Read",7,7,7
"""
NVPROF_TRACE = """==1== Profiling result:
"Device","Context","Stream","Kernel","Correlation_ID","l2_read_transactions","l2_write_transactions"
,,,,,,
"GTX (0)","1","7","conv(float*)",137,"100","40"
"GTX (0)","1","7","conv(float*)",139,"1,100","60"
"GTX (0)","1","7","relu(float*)",141,"5","5"
"""
NCU_LONG = """==PROF== Connected to process 42
the program printed this, with commas
==PROF== Disconnected
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Section Name","Metric Name","Metric Unit","Metric Value"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_read.sum","sector","1,234"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_write.sum","Ksector","2.5"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","dram__bytes_read.sum","Mbyte","3.2"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_red.sum","sector","500"
"1","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_read.sum","sector","766"
"1","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","gpu__time_duration.sum","usecond","7.1"
"""
NCU_RAW = """"ID","Process ID","Kernel Name","Block Size","dram__sectors_read.sum","dram__bytes_read.sum","lts__t_sectors_op_read.sum"
"","","","","sector","byte","Msector"
"0","42","conv(float*)","(256, 1, 1)","64","2048","0.5"
"1","42","relu(float*)","(256, 1, 1)","0","0","0"
"""


def read(tmp_path, text):
  path = tmp_path / 'profile.csv'
  path.write_text(text)
  return profiles.read_profile(path)


def test_nvprof_summary_is_mean_times_invocations(tmp_path):
  assert read(tmp_path, NVPROF_SUMMARY) == [
    ('void conv<float, int=3>(float*)', 3, 60, None, None, 4.5),
    ('relu(float*)', 2, 14, None, None, None),
  ]


def test_nvprof_trace(tmp_path):
  assert read(tmp_path, NVPROF_TRACE) == [
    ('conv(float*)', 2, 1200, 100, None, None),
    ('relu(float*)', 1, 5, 5, None, None),
  ]


def test_ncu_long(tmp_path):
  assert read(tmp_path, NCU_LONG) == [('conv(float*)', 2, 2000, 3000, 100_000, None)]


def test_ncu_raw_page_prefers_sectors_to_bytes(tmp_path):
  assert read(tmp_path, NCU_RAW) == [
    ('conv(float*)', 1, 500_000, None, 64, None),
    ('relu(float*)', 1, 0, None, 0, None),
  ]


@pytest.mark.parametrize(
  'text, message',
  [
    ('', r"line 1, column 1: no line names a column 'Kernel'"),
    ('a,b\n1,2\n', r'profile.csv, line 1, column 1: no line names'),
    ('"Kernel","Grid"\n"conv","1"\n', r"line 1, column 'Grid': no known metric.*lts__t_sectors"),
    (NVPROF_SUMMARY.replace('20.000000', 'many'), r"line 6, column 'Avg': 'many' is no number"),
    (NVPROF_SUMMARY.replace(',3,"l2', ',0,"l2'), r"line 6, column 'Invocations': 0 is no"),
    (NVPROF_TRACE.replace('"5","5"', '"5"'), r'line 6, column 7: 6 fields, but line 2 names 7'),
    (NVPROF_TRACE.replace('"5","5"', '"-5","5"'), r"'l2_read_transactions': '-5' is negative"),
    (NVPROF_TRACE.replace('relu(float*)', ''), r"line 6, column 'Kernel': no name"),
    (NCU_LONG.replace('Ksector', 'furlong'), r"line 6, column 'Metric Unit': unit 'furlong'"),
    (NCU_LONG.replace('"766"', '"7\x0066"'), r'line 9.*'),
    (NCU_RAW.split('\n')[0] + '\n', r'no launch with a known metric'),
    (NCU_RAW + '"2","42","half', r'line 5'),
  ],
)
def test_broken_files_are_refused_by_file_line_and_column(tmp_path, text, message):
  with pytest.raises(profiles.ProfileError, match=message) as error:
    read(tmp_path, text)
  assert str(tmp_path / 'profile.csv') in str(error.value)
  assert '\n' not in str(error.value)


def test_binary_file_and_missing_file(tmp_path):
  path = tmp_path / 'report.ncu-rep'
  path.write_bytes(b'NVR\x00\xff\xfe\x80')
  with pytest.raises(profiles.ProfileError, match='not text'):
    profiles.read_profile(path)
  with pytest.raises(OSError):
    profiles.read_profile(tmp_path / 'none.csv')
