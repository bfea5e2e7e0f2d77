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
"GeForce GTX 1080 Ti (0)","void conv<float, int=3>(float*)",3,"l2_read_throughput","T",1GB/s,3GB/s,2GB/s
"GeForce GTX 1080 Ti (0)","void conv<float, int=3>(float*)",3,"l2_tex_read_hit_rate","H",60.00%,80.00%,70.00%
"GeForce GTX 1080 Ti (0)","relu(float*)",2,"l2_read_transactions","L2 Read",7,7,7
"""
NVPROF_TRACE = """==1== Profiling result:
"Device","Context","Stream","Kernel","Correlation_ID","l2_read_transactions","l2_write_transactions"
,,,,,,
"GTX (0)","1","7","conv(float*)",137,"100","40"
"GTX (0)","1","7","conv(float*)",139,"1,100","60"
"GTX (0)","1","7","relu(float*)",141,"5","5"
"""
GPU_TRACE = """==9== NVPROF is profiling process 9, command: ./net, with an argument
==9== Profiling result:
"Start","Duration","Grid X","Grid Y","Grid Z","Block X","Block Y","Block Z","Size","Throughput","Device","Context","Stream","Name"
s,us,,,,,,,MB,GB/s,,,,
1.50,120.5,,,,,,,4.0,11.4,"Tesla V100-SXM2-16GB (0)","1","7","[CUDA memcpy HtoD]"
1.60,1000.0,64,2,1,256,1,1,,,"Tesla V100-SXM2-16GB (0)","1","7","conv(float*) [31]"
==9== Warning: one of the tool's lines, in between
1.70,1.5,,,,,,,0.1,2.0,"Tesla V100-SXM2-16GB (0)","1","7","[CUDA memset]"
1.80,500.0,8,1,1,32,4,1,,,"Tesla V100-SXM2-16GB (0)","1","7","relu(float*) [35]"
"""
# The same with metrics, and the calls that nvprof lists where both traces are asked for.
METRIC_TRACE = """==9== Profiling result:
"Start","Duration","Grid X","Grid Y","Grid Z","Device","Name","Correlation_ID","l2_tex_read_transactions","l2_read_transactions","dram_read_bytes","dram_read_throughput","l2_tex_hit_rate"
ms,ms,,,,,,,,,MB,GB/s,%
1,2,,,,,"cudaLaunchKernel",7,,,,,
2,3,4,1,1,"V100 (0)","conv(float*)",7,90,100,0.64,50,25
3,4,4,1,1,"V100 (0)","relu(float*)",8,10,20,0.32,50,75
"""
NCU_LONG = """==PROF== Connected to process 42
the program printed this, with commas
==PROF== Disconnected
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Section Name","Metric Name","Metric Unit","Metric Value"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_read.sum","sector","1,234"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_write.sum","Ksector","2.5"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","dram__bytes_read.sum","Mbyte","3.2"
"0","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_red.sum","sector","500"
step 1, loss 0.5
"1","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","lts__t_sectors_op_read.sum","sector","766"
"1","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","dram__bytes_read.sum","byte","n/a"
"1","42","net","127.0.0.1","conv(float*)","1","7","Command line profiler metrics","gpu__time_duration.sum","usecond","7.1"
"""
NCU_RAW = """"ID","Process ID","Kernel Name","Block Size","dram__sectors_read.sum","dram__bytes_read.sum","lts__t_sectors_op_read.sum"
"","","","","sector","byte","Msector"
"0","42","conv(float*)","(256, 1, 1)","64","2048","0.5"
"1","42","relu(float*)","(256, 1, 1)","0","0","0"
"""
_RANGE = 'thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg'
NCU_RAW_NVTX = f""""ID","Kernel Name","{_RANGE}","Grid Size","CC","gpu__time_duration.sum","lts__t_sectors_srcunit_tex_op_read.sum","lts__t_sectors_srcunit_tex_op_read.sum.per_second","lts__t_sectors_op_read.sum","lts__t_sectors_srcunit_tex_op_write.sum","lts__t_sectors_srcunit_tex_op_red.sum","lts__t_sectors_op_red.sum","lts__t_sector_hit_rate.pct"
"","","","","","us","sector","sector/ns","sector","sector","sector","sector","%"
"0","conv","1  ""<default domain>:step:none:none:none:none:none:none""  ""<default domain>:a:b:none:none:none:none:none:none"" ","(4, 2, 1)","7.0","12.5","100","7","900","40","3","30","62.5"
"1","relu","","(4,1,1)","7.0","1,000","50","7","800","20","0","30","50"
"""
NCU_DETAILS = """"ID","Kernel Name","Block Size","Section Name","Metric Name","Metric Unit","Metric Value","Rule Name","Rule Description"
"0","conv","(128, 1, 1)","GPU Speed Of Light Throughput","Duration","msecond","2.5","",""
"0","conv","(128, 1, 1)","GPU Speed Of Light Throughput","DRAM Throughput","%","40","",""
"0","conv","(128, 1, 1)","Memory Workload Analysis","L2 Hit Rate","%","75","",""
"0","conv","(128, 1, 1)","Memory Workload Analysis Tables","L2 Cache Read Sectors","sector","4,000","",""
"0","conv","(128, 1, 1)","Memory Workload Analysis Tables","Device Memory Bytes Write","Kbyte","6.4","",""
"0","conv","(128, 1, 1)","SpeedOfLight","","","","Bottleneck","Look at, ""this""."
"0","conv","(128, 1, 1)","PM Sampling","Duration","msecond","2.5","",""
"""


def write(tmp_path, text, encoding='utf-8'):
  path = tmp_path / 'profile.csv'
  path.write_bytes(text.encode(encoding))
  return path


def read(tmp_path, text):
  return profiles.read_profile(write(tmp_path, text))


def launches(tmp_path, text, *fields, encoding='utf-8'):
  found = profiles.read_launches(write(tmp_path, text, encoding))
  return [tuple(getattr(launch, field) for field in fields) for launch in found]


def test_nvprof_summary_is_mean_times_invocations(tmp_path):
  assert read(tmp_path, NVPROF_SUMMARY) == [
    ('void conv<float, int=3>(float*)', 3, 60, None, None, 4.5),
    ('relu(float*)', 2, 14, None, None, None),
  ]
  found = launches(tmp_path, NVPROF_SUMMARY, 'launches', 'device', 'l2_read_hit_rate')
  assert found == [
    (3, 'GeForce GTX 1080 Ti', pytest.approx(0.7)),
    (2, 'GeForce GTX 1080 Ti', None),
  ]


def test_nvprof_trace(tmp_path):
  assert read(tmp_path, NVPROF_TRACE) == [
    ('conv(float*)', 2, 1200, 100, None, None),
    ('relu(float*)', 1, 5, 5, None, None),
  ]


def test_gpu_trace_without_metrics(tmp_path):
  fields = ('kernel', 'grid', 'block', 'seconds', 'l2_reads', 'is_copy')
  assert launches(tmp_path, GPU_TRACE, *fields) == [
    ('[CUDA memcpy HtoD]', None, None, pytest.approx(120.5e-6), None, True),
    ('conv(float*)', (64, 2, 1), (256, 1, 1), pytest.approx(1e-3), None, False),
    ('[CUDA memset]', None, None, pytest.approx(1.5e-6), None, True),
    ('relu(float*)', (8, 1, 1), (32, 4, 1), pytest.approx(5e-4), None, False),
  ]
  assert launches(tmp_path, GPU_TRACE, 'device')[0] == ('Tesla V100-SXM2-16GB',)
  assert [kernel.kernel for kernel in read(tmp_path, GPU_TRACE)] == ['conv(float*)', 'relu(float*)']


def test_gpu_trace_with_metrics_prefers_the_processors_sectors(tmp_path):
  fields = ('kernel', 'seconds', 'l2_reads', 'l2_writes', 'dram_reads', 'l2_hit_rate')
  assert launches(tmp_path, METRIC_TRACE, *fields) == [
    ('conv(float*)', pytest.approx(3e-3), 90, None, 20_000, 0.25),
    ('relu(float*)', pytest.approx(4e-3), 10, None, 10_000, 0.75),
  ]


def test_a_metric_that_some_launches_lack_gives_way_to_one_that_all_have(tmp_path):
  text = METRIC_TRACE.replace('"relu(float*)",8,10,', '"relu(float*)",8,n/a,')
  assert launches(tmp_path, text, 'l2_reads') == [(100,), (20,)]


def test_nsight_systems_trace(tmp_path):
  text = (
    'Start (ns),Duration (ns),CorrId,GrdX,GrdY,GrdZ,BlkX,BlkY,BlkZ,Bytes (MB),Device,Strm,Name\n'
    '1000,2500,7,8,4,1,128,1,1,,NVIDIA A100-SXM4-40GB (0),7,conv(float*)\n'
  )
  assert launches(tmp_path, text, 'kernel', 'grid', 'block', 'device', 'seconds') == [
    ('conv(float*)', (8, 4, 1), (128, 1, 1), 'NVIDIA A100-SXM4-40GB', pytest.approx(2.5e-6))
  ]


def test_a_cell_of_two_lines(tmp_path):
  assert read(tmp_path, NCU_RAW.replace('relu(float*)', 'relu(\n float*)'))[1].kernel == (
    'relu(  float*)'
  )


def test_nvprof_times_without_metrics(tmp_path):
  text = (
    '"Type","Time(%)","Time","Calls","Avg","Min","Max","Name"\n,%,ms,,us,us,us,\n'
    '"GPU activities",90.0,4.5,3,1500,1000,2000,"conv(float*)"\n'
    '"API calls",10.0,9.0,7,1,1,1,"cudaMalloc"\n'
  )
  assert launches(tmp_path, text, 'kernel', 'launches', 'seconds') == [
    ('conv(float*)', 3, pytest.approx(4.5e-3))
  ]


def test_ncu_long(tmp_path):
  # A sum of what some launches have would pass for that of all.
  assert read(tmp_path, NCU_LONG) == [('conv(float*)', 2, 2000, None, None, None)]
  fields = ('l2_reads', 'l2_writes', 'dram_reads', 'seconds')
  assert launches(tmp_path, NCU_LONG, *fields) == [
    (1234, 3000, 100_000, None),
    (766, None, None, pytest.approx(7.1e-6)),
  ]


def test_ncu_raw_page_prefers_sectors_to_bytes(tmp_path):
  assert read(tmp_path, NCU_RAW) == [
    ('conv(float*)', 1, 500_000, None, 64, None),
    ('relu(float*)', 1, 0, None, 0, None),
  ]


def test_ncu_raw_page_with_nvtx_and_sectors_of_the_processors(tmp_path):
  fields = ('nvtx', 'grid', 'capability', 'seconds', 'l2_reads', 'l2_writes', 'l2_hit_rate')
  assert launches(tmp_path, NCU_RAW_NVTX, *fields) == [
    ('step/a:b', (4, 2, 1), '7.0', pytest.approx(12.5e-6), 100, 43, 0.625),
    (None, (4, 1, 1), '7.0', pytest.approx(1e-3), 50, 20, 0.5),
  ]


def test_ncu_details_page(tmp_path):
  fields = ('block', 'seconds', 'l2_reads', 'dram_writes', 'l2_hit_rate')
  assert launches(tmp_path, NCU_DETAILS, *fields) == [
    ((128, 1, 1), pytest.approx(2.5e-3), 4000, 200, 0.75)
  ]


def test_ncu_summary(tmp_path):
  text = (
    '"Process ID","Kernel Name","Invocations","Section Name","Metric Name","Metric Unit",'
    '"Minimum","Maximum","Average"\n'
    '"1","conv","4","Command line","lts__t_sectors_op_write.sum","sector","1","3","2"\n'
    '"1","conv","4","Command line","Duration","us","1","3","2.5"\n'
  )
  assert launches(tmp_path, text, 'launches', 'l2_writes', 'seconds') == [
    (4, 8, pytest.approx(1e-5))
  ]


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_joined_tables(tmp_path, delimiter, encoding):
  text = """index,kernel,grid_x,grid_y,block_x,ms,l2_read_transactions,l2_tex_read_transactions,l2_tex_read_hit_pct,l2_tex_write_transactions,dram_read_bytes,dram_write_bytes
0,conv,8,2,64,0.25,100,90,12.5,7,320,64
1,[CUDA memset],,,,0.5,0,0,0,0,0,32
""".replace(',', delimiter)
  fields = ('kernel', 'grid', 'block', 'seconds', *profiles.COUNTERS, 'l2_read_hit_rate')
  assert launches(tmp_path, text, *fields, encoding=encoding) == [
    ('conv', (8, 2, 1), (64, 1, 1), 2.5e-4, 90, 7, 10, 2, 0.125),
    ('[CUDA memset]', None, None, 5e-4, 0, 0, 0, 1, 0),
  ]


@pytest.mark.parametrize(
  'text',
  [
    'Kernel;l2 write sectors;Duration [us]\nkernel;1.234;1,5\n'.replace('1.234', '1234'),
    '"Kernel Name","Metric Name","Metric Value"\n"kernel","L2 Write Sectors","1,234"\n'
    '"kernel","Duration (us)","1.5"\n',
    'Metric Name,Metric Unit,kernel\nlts__t_sectors_op_write.sum,,1234\ngpu__time_duration.sum,us,1.5\n',
    'kernel,l2_write_transactions,time_us\nkernel,1234 sectors,1.5us\n',
    'kernel,lts__t_bytes_op_write.sum,duration_us\nkernel,39488,1.5\n',
    'kernel,lts__t_bytes_op_write.sum,gpu__time_duration.sum\nkernel,39.488 Kbyte,1500\n',
  ],
)
def test_one_kernel_in_other_spellings(tmp_path, text):
  fields = ('kernel', 'l2_writes', 'seconds')
  assert launches(tmp_path, text, *fields) == [
    ('kernel', pytest.approx(1234), pytest.approx(1.5e-6))
  ]


def test_several_kernels_metrics_without_identities(tmp_path):
  by_launch = (
    'Kernel Name,Metric Name,Metric Value\n'
    'a,l2_read_transactions,1\na,l2_write_transactions,2\nb,l2_read_transactions,3\n'
    'b,l2_write_transactions,4\na,l2_read_transactions,5\na,l2_write_transactions,6\n'
  )
  wanted = [('a', 1, 2), ('b', 3, 4), ('a', 5, 6)]
  assert launches(tmp_path, by_launch, 'kernel', 'l2_reads', 'l2_writes') == wanted
  turned = 'Metric,a,b,a\nl2_read_transactions,1,3,5\nl2_write_transactions,2,4,6\n'
  assert launches(tmp_path, turned, 'kernel', 'l2_reads', 'l2_writes') == wanted


def test_a_file_of_two_runs(tmp_path):
  found = launches(tmp_path, NCU_RAW + NCU_RAW, 'kernel', 'dram_reads')
  assert found == 2 * [('conv(float*)', 64), ('relu(float*)', 0)]


@pytest.mark.parametrize('name', ['dram__bytes_read.sum.per_second', 'l2_read_throughput'])
def test_rates_are_no_counts(tmp_path, name):
  text = f'Kernel,{name},l2_write_transactions\nconv,5,6\n'
  assert launches(tmp_path, text, *profiles.COUNTERS) == [(None, 6, None, None)]


def test_a_time_of_unknown_unit_is_none(tmp_path):
  text = 'Kernel,Duration,l2_write_transactions\nconv,5,6\n'
  assert launches(tmp_path, text, 'seconds') == [(None,)]


def test_a_sum_of_some_is_no_total(tmp_path):
  found = profiles.read_launches(write(tmp_path, NCU_LONG))
  assert profiles.total_of(found, 'l2_reads') == 2000
  assert profiles.total_of(found, 'dram_reads') is None
  trace = profiles.read_launches(write(tmp_path, METRIC_TRACE))
  copy = trace[0]._replace(kernel='[CUDA memset]', l2_reads=None)
  assert profiles.total_of((*trace, copy), 'l2_reads') == 100


@pytest.mark.parametrize(
  'text, message',
  [
    ('', r"line 1, column 1: no line names a column 'Kernel'.*the file is empty"),
    ('a,b\n1,2\n', r'profile.csv, line 1, column 1: no line names'),
    ('"Start","Duration","Name"\nus,us,\n1,2,"cudaMalloc"\n', 'no line names'),
    ('"Kernel","Grid"\n"conv","1"\n', r"line 1, column 'Grid': no known metric.*lts__t_sectors"),
    (NVPROF_SUMMARY.replace('20.000000', 'many'), r"line 6, column 'Avg': 'many' is no number"),
    (NVPROF_SUMMARY.replace('20.000000', '20MB/s'), r"line 6, column 'Avg': unit 'MB/s'.*rate"),
    (NVPROF_SUMMARY.replace(',3,"l2', ',0,"l2'), r"line 6, column 'Invocations': 0 is no"),
    (NVPROF_TRACE.replace('"5","5"', '"5"'), r'line 6, column 7: 6 fields, but line 2 names 7'),
    (NVPROF_TRACE.replace('"5","5"', '"-5","5"'), r"'l2_read_transactions': '-5' is negative"),
    (NVPROF_TRACE.replace('"1,100"', '"1,10"'), r"line 5, column 'l2_read.*'1,10' is no number"),
    (NVPROF_TRACE.replace('"1,100"', '"1.100.000"'), r"line 5, column 'l2_read.*no number"),
    (NVPROF_TRACE.replace('"5","5"', '"1e999","5"'), r"line 6.*'1e999' is no number"),
    (NVPROF_TRACE.replace('relu(float*)', ''), r"line 6, column 'Kernel': no name"),
    (GPU_TRACE.replace('s,us,', 's,parsec,'), r"line 5, column 'Duration': unit 'parsec'"),
    (GPU_TRACE.replace(',64,2,', ',many,2,'), r"line 6, column 'Grid X': 'many' is no size"),
    (NCU_LONG.replace('Ksector', 'furlong'), r"line 6, column 'Metric Unit': unit 'furlong'"),
    (NCU_LONG.replace('"766"', '"7\x0066"'), r'line 10.*'),
    (
      NCU_LONG.replace('"1","42","net","127.0.0.1","conv', '"0","42","net","127.0.0.1","fc'),
      'same',
    ),
    (NCU_RAW.split('\n')[0] + '\n', r'no launch with a known metric'),
    (NCU_RAW.replace('"sector","byte"', '"%","byte"'), r"line 3, column 'dram__s.*'%' is that of"),
    (NCU_RAW + '"2","42","half', r'line 5'),
    (NCU_RAW + '"2","42","half"', r'line 5, column 4: 3 fields, but line 1 names 7'),
    (NCU_DETAILS.replace('"75"', '"high"'), r"line 4, column 'Metric Value': 'high' is no number"),
    ('kernel,ms\nconv\n', r'line 2, column 2: 1 fields, but line 1 names 2'),
    ('Metric,a,b\nl2_read_transactions,1,x\n', r"line 2, column 'b': 'x' is no number"),
  ],
)
def test_broken_files_are_refused_by_file_line_and_column(tmp_path, text, message):
  with pytest.raises(profiles.ProfileError, match=message) as error:
    read(tmp_path, text)
  assert str(tmp_path / 'profile.csv') in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'data, message',
  [
    (b'NVR\x00\xff\xfe\x80', 'a report of Nsight Compute; `ncu --import'),
    (b'SQLite format 3\x00\x10', 'a database of nvprof; `nvprof --import-profile'),
    (b'ID,Kernel Name\n\xff\xfe\x80', r'line 2, column 1: not text'),
    (b'\xff\xfe\x00', 'not text'),
  ],
)
def test_binary_files(tmp_path, data, message):
  path = tmp_path / 'report.ncu-rep'
  path.write_bytes(data)
  with pytest.raises(profiles.ProfileError, match=message):
    profiles.read_profile(path)


def test_missing_file(tmp_path):
  with pytest.raises(OSError):
    profiles.read_profile(tmp_path / 'none.csv')
